"""Shampoo, corrected: Kronecker-factored preconditioning without its finite-sample bias."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from deltabias.generated import adamw
from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.agreement import check_agreement, describe
from deltabias.microbatch.matrix_moments import MatrixStep, full_precision
from deltabias.microbatch.matrix_stats import matrix_shape
from deltabias.microbatch.ranks import check_initialized
from deltabias.optim.base import CorrectedOptimizer, accumulator_dtype
from deltabias.optim.block_stacks import layout_of
from deltabias.optim.checks import described
from deltabias.optim.kronecker_states import inversion_name, state_shapes
from deltabias.optim.kronecker_step import begin, finish, read_by_finish
from deltabias.optim.shampoo_meter import MatrixValidity
from deltabias.optim.shampoo_options import (
    check_group,
    check_statistics,
    options_of,
    require_moments,
)
from deltabias.optim.shampoo_sample import gather
from deltabias.optim.shampoo_stacks import Work, solved, spread, stacks
from deltabias.optim.stepping import by_step_count, run_step, use_foreach

KINDS_OF_BLOCKS = 4  # inner ones, the right edge, the lower edge, the corner


class Shampoo(CorrectedOptimizer):
    r"""Shampoo whose mean update is the population update, to second order.

    .. math:: W \leftarrow (1-\eta\lambda) W - \eta\,
              (\hat L + \epsilon I)^{-1/p}\,\hat M\,(\hat R + \epsilon I)^{-1/p}

    with L̂, R̂ the averages of G Gᵀ and Gᵀ G, M̂ that of G, and p = 4 (2 with one side). The
    expectation of this differs from its value at E L̂, E M̂, E R̂ by the inversion of each side, the
    coupling of M̂ with each, and the cross term of the sides. With ``correction="full"`` all five
    are estimated by generated second-order kernels, tracked over the history, and removed; each
    side becomes P½ (I + K)⁻¹ P½, positive definite whatever K is.

    Matrices, and tensors of higher rank as [shape[0], rest], are preconditioned, in blocks of at
    most `block_size`; vectors, 0-d and empty parameters take the steps of `torch.optim.AdamW`.

    Parameters
    ----------
    params, lr, betas, weight_decay, maximize
        as `torch.optim.AdamW`; decay is decoupled. β₁ is of M̂, β₂ of the factors
    damping
        added to the averaged factors (to the sums with ``memory="sum"``), in squared gradient units
    correction : {"full", "diagonal", "eigenvalue_only", "sketch", "cross_fit", "plug_in"}
        With [d, n] blocks, beyond the plug-in's states d² + n² + d n:
        ``full`` d² + n² + 2 d n numbers;
        ``sketch`` as many, from one random joint direction of the microbatches;
        ``diagonal`` d + n, the exact term's diagonal in the eigenbasis, neither coupling nor cross;
        ``eigenvalue_only`` d + n, the published shortcut ½ f″ Var λ, for comparison;
        ``cross_fit`` momentum from one group of microbatches, factors from the other, both folds
        averaged: twice the plug-in's states and time;
        ``plug_in`` nothing.
    second_moment : {"square_of_mean", "mean_of_squares"}
        what the factors average: G Gᵀ of the mean gradient, or the mean of the microbatches'
        G_r G_rᵀ, which needs `MatrixStats`. Two rules with two population updates.
    spread : {"history", "microbatches"}
        where the covariance comes from: the step's deviation from the average so far (one
        deviation; takes drift for spread), or the microbatches (only for "mean_of_squares", with
        ``MatrixStats(params, keep="gradients")``, r = m; ``keep="sketch"`` for ``sketch``, r = 1)
    memory : {"ema", "sum"}
        the factors' memory; a sum is used as it is, undivided
    root : int, Fraction or str, optional
        p of both sides instead of 2 or 4: 1, "4/3", 2, 3, 4, 6 or 8
    sides : {"both", "left", "right"}
        which factors precondition
    refresh
        steps between eigendecompositions. Above 1, bases and roots are states (2 d² + 2 n², with
        ``full`` and ``sketch`` 2 d n more), and until the basis has seen enough directions the
        newest terms are left out and counted as clamped
    spread_every
        steps between measurements of the spread, a divisor of `refresh`: one deviation then stands
        for so many steps, right for a spread that does not change. The others cost the plug-in's
    grafting : {None, "sgd", "adam", "rmsprop"}
        rescale each block's update to this optimizer's norm
    block_size
        largest dimension of a block
    eps
        of the AdamW steps and of grafting
    foreach
        of the AdamW steps, as torch's; blocks of equal shape are always batched
    nonfinite : {"raise", "skip", "ignore"}
        what to do with a NaN or infinite gradient; ``ignore`` does not look, and then the
        eigensolver raises
    solver : {"eigh", "iteration"}
        "iteration" computes inverse roots by products of matrices alone, each with a proven bound;
        for ``plug_in`` and ``cross_fit``, as corrections need the eigenbasis. See `iterate_root`
    root_error, root_precision
        of the iteration: the largest relative error that is accepted (what is not within it is
        left to the eigensolver, and counted), and the precision that is tried first

    Notes
    -----
    What is left, relative to the bias, is of the order of the factors' Σ w_s²: for betas (0.9,
    0.95), 4 × 6 blocks and normal noise 2-11 % of it from step 60 on, 20-35 % at step 10, 20-90 %
    at step 2; with larger blocks more (at step 50 to 60: 7 %, 8 % and 17 % for d = 8, 16, 32). The
    update's root mean square error grows by at most 1.3 % from step 20 on. With
    ``spread="history"`` drift of the mean counts as spread: see `history_deviations`.

    A step computes everything that can fail before it changes anything, so it holds 3 (d² + n²)
    numbers for all blocks at once besides the states.

    What a step costs, counted, and in which precision: `deltabias.optim.kronecker_step`.

    Raises
    ------
    ValueError, TypeError
        for options out of range or not known, at construction and in `add_param_group`;
        NotImplementedError for sharded parameters.
    EigensolverFailed, SingularPreconditioner
        by `step`, before anything is changed: no eigendecomposition; a deficient factor with
        ``damping=0``.

    Sources
    -------
    Gupta, Koren & Singer, arXiv 1802.09568; Shi et al., arXiv 2309.06497 (blocks, grafting). The
    correction: `deltabias.optim.tracked_spread`.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.eye(2))
    >>> optimizer = Shampoo([weight], lr=0.5)
    >>> weight.grad = torch.diag(torch.tensor([4.0, 1.0]))
    >>> optimizer.step()  # the first step is orthogonal: every singular value is 1
    >>> weight.detach()
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """

    plain = "plug_in"
    states = ("exp_avg", "exp_avg_sq")
    elementwise = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        damping: float = 1e-12,
        weight_decay: float = 0.0,
        *,
        correction: str = "full",
        second_moment: str = "square_of_mean",
        spread: str = "history",
        memory: str = "ema",
        root: int | Fraction | str | None = None,
        sides: str = "both",
        refresh: int = 1,
        spread_every: int = 1,
        grafting: str | None = None,
        block_size: int = 1024,
        eps: float = 1e-8,
        foreach: bool | None = None,
        maximize: bool = False,
        nonfinite: str = "raise",
        solver: str = "eigh",
        root_error: float = 1e-4,
        root_precision: str = "fp32",
    ):
        defaults = {
            "lr": lr, "betas": betas, "damping": damping, "weight_decay": weight_decay,
            "correction": correction, "second_moment": second_moment, "spread": spread,
            # a Fraction is no plain number to torch.load(weights_only=True)
            "memory": memory, "root": root if root is None else str(root), "sides": sides,
            "refresh": refresh, "spread_every": spread_every, "grafting": grafting,
            "block_size": block_size, "eps": eps, "foreach": foreach, "maximize": maximize,
            "nonfinite": nonfinite, "solver": solver, "root_error": root_error,
            "root_precision": root_precision,
        }  # fmt: skip
        self._clamped: Tensor | int = 0
        self._fallbacks = 0
        self._root_ranks: tuple | None = None
        self._work: dict[int, list[Work]] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group's own options are checked too."""
        if param_group.get("root") is not None:
            param_group = {**param_group, "root": str(param_group["root"])}
        check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def share_roots(self, process_group: "torch.distributed.ProcessGroup | None" = None) -> None:
        """From now on each rank of the group computes a part of the inverse roots.

        For parameters that are replicated over the group, as by DistributedDataParallel: every
        rank must make the same steps. On a CPU the steps are those of one process, bit for bit.
        Every rank calls it once, after construction; it is not part of a checkpoint.

        Raises
        ------
        RuntimeError
            torch.distributed is not initialized.
        RanksDisagree, RankLost
            Other parameters or options on another rank; a rank that does not take part.
        """
        check_initialized()
        check_agreement(describe(self._all_params()) | described(self), process_group)
        self._root_ranks = (process_group,)

    # -- statistics ---------------------------------------------------------------------------

    def _check_statistics(self, stats: MicrobatchStats, group: dict[str, Any]) -> None:
        check_statistics(stats, group)

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        # the spread of microbatches goes with means of squares, see `check_group`
        return group["second_moment"] == "mean_of_squares" or group["correction"] == "cross_fit"

    def _take_statistics(self) -> MatrixStep | None:
        taken = super()._take_statistics()
        if taken is None and any(
            options.tracks and options.spread == "history"
            for options in map(options_of, self.param_groups)
        ):
            self._counts["corrected"] += 1
        return taken

    # -- the step -----------------------------------------------------------------------------

    def _before_update(self, params: list[Tensor]) -> None:
        """Prepare every block of every group: what can fail fails here, with nothing changed."""
        super()._before_update(params)
        self._work = {}
        moments = self._fresh_statistics()
        for index, group in enumerate(self.param_groups):
            chosen = [p for p in group["params"] if p.grad is not None]
            for param in chosen:
                self._init_state(param, group)
            require_moments(group, moments)
            matrices = [p for p in chosen if matrix_shape(p.shape)]
            with full_precision():
                self._work[index] = list(self._begun(group, matrices, moments))
        with full_precision():
            self._solve()

    def _fresh_statistics(self) -> MatrixStep | None:
        """This step's statistics, not yet consumed."""
        wanted = any(map(self._wants_statistics, self.param_groups))
        if self._stats is None or not wanted or not self._stats.is_fresh:
            return None
        return self._stats.result()

    def _begun(
        self, group: dict[str, Any], params: list[Tensor], moments: MatrixStep | None
    ) -> Iterator[Work]:
        options = options_of(group)
        for step, stack, members in stacks(group, params, self.state):
            sample, misaligned = gather(members, group, options, moments)
            states = stack.read(options.powers)
            yield Work(stack, members, begin(states, sample, step, options), misaligned)

    def _solve(self) -> None:
        """The inverse roots of all groups' work."""
        options = {i: options_of(group) for i, group in enumerate(self.param_groups)}
        self._work, fell = solved(self._work, options, self._root_ranks)
        if fell:
            self._fallbacks += fell
            self._warn_once(
                "Shampoo: for some inverse roots the iteration could not prove root_error, and "
                "the eigensolver was asked, too; validity().fallbacks counts them. Raise "
                "root_error or damping, or use solver='eigh'."
            )

    def _update_group(
        self, group: dict[str, Any], params: list[Tensor], moments: MatrixStep | None
    ) -> None:
        options = options_of(group)
        index = next(i for i, other in enumerate(self.param_groups) if other is group)
        for param in params:
            self.state[param]["step"] += 1
            if group["weight_decay"] != 0:
                param.mul_(1 - group["lr"] * group["weight_decay"])
        self._step_vectors(group, [p for p in params if not matrix_shape(p.shape)])
        updates = {
            id(p): torch.empty(matrix_shape(p.shape), dtype=accumulator_dtype(p), device=p.device)
            for p in params
            if matrix_shape(p.shape)
        }
        for work in self._work.pop(index):
            states = work.stack.read(read_by_finish(work.progress, options))
            with full_precision():
                finished = finish(states, work.progress, options)
            work.stack.write(finished.states)
            self._clamped = self._clamped + finished.clamped
            self._misaligned = self._misaligned + work.misaligned
            spread(work.members, finished.update, updates, group["block_size"])
        for param in params:
            if id(param) in updates:
                update = updates[id(param)].view(param.shape)
                param.add_(update.to(param.dtype), alpha=-float(group["lr"]))

    def _step_vectors(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """The generated step of AdamW, for what has no two factors."""
        beta1, beta2 = map(float, group["betas"])
        for count, indices in by_step_count([self.state[p]["step"] for p in params]).items():
            chosen = [params[i] for i in indices]
            tensors = {
                "param": chosen,
                "grad": [-p.grad if group["maximize"] else p.grad for p in chosen],
                **{name: [self.state[p][name] for p in chosen] for name in self.states},
            }
            scalars = {
                "eps": group["eps"],
                "beta1": beta1,
                "beta2": beta2,
                "lr": float(group["lr"]),
                **adamw.scalars_plug_in(count, beta1, beta2),
            }
            foreach = use_foreach(group, chosen)
            run_step(adamw, "step_plug_in", tensors, scalars, foreach=foreach)

    # -- state --------------------------------------------------------------------------------

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The states of matrices, all of at least fp32."""
        names = state_shapes(1, 1, 1, options_of(group))
        return tuple(f"{name}.{k}" for name in names for k in range(KINDS_OF_BLOCKS))

    @torch.no_grad()
    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        state, shape = self.state[param], matrix_shape(param.shape)
        if "step" not in state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
        if shape is None:
            for name in self.states:
                if name not in state:
                    state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
            return
        options, dtype = options_of(group), accumulator_dtype(param)
        for k, kind in enumerate(layout_of(shape, group["block_size"])):
            rows, columns = (s.stop - s.start for s in kind[0])
            for name, size in state_shapes(len(kind), rows, columns, options).items():
                if f"{name}.{k}" not in state:
                    state[f"{name}.{k}"] = torch.zeros(size, dtype=dtype, device=param.device)

    def _remembers(self, state: dict[str, Tensor], group: dict[str, Any]) -> bool:
        return False  # a step without statistics is the same whatever came before

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_clamped": self._clamped, "_fallbacks": self._fallbacks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_clamped", 0)
        self.__dict__.setdefault("_fallbacks", 0)
        self.__dict__["_root_ranks"] = None
        self.__dict__["_work"] = {}
        for group in self.param_groups:
            group.setdefault("spread_every", 1)

    # -- the meter ----------------------------------------------------------------------------

    def validity(self) -> MatrixValidity:
        """How much is corrected and how far the expansion can be trusted; see `MatrixValidity`.

        Worked out from the state when asked for (eigenvalues of K), so it costs nothing when not.
        """
        return MatrixValidity(
            **vars(super().validity()), clamped=int(self._clamped), fallbacks=self._fallbacks
        )

    def _meter(
        self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        options, shape = options_of(group), matrix_shape(param.shape)
        inversion, coupling = [], []
        if shape is None or not options.tracks:
            return torch.zeros(0), torch.zeros(0)
        for k in range(len(layout_of(shape, group["block_size"]))):
            for side in options.powers:
                tracked = state[f"{inversion_name(side, options)}.{k}"]
                values = tracked if tracked.ndim == 2 else torch.linalg.eigvalsh(tracked)
                inversion.append(values.flatten().cpu())
            if options.couples:
                coupling.append(state[f"coupling_share.{k}"].flatten().cpu())
        return torch.cat(inversion), torch.cat(coupling) if coupling else torch.zeros(1)

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        return 1 / options_of(group).weights(int(step)).squares
