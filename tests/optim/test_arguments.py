"""Every hyperparameter that cannot be right is refused, with what was passed and allowed."""

import math

import pytest
import torch
from tests.optim.cases import parameter

from deltabias.optim import AdamW, RMSprop, SophiaG

ALL = [AdamW, RMSprop, SophiaG]


def row(kind, text, **options):
    id_ = "-".join([kind.__name__, *(f"{k}={v}" for k, v in options.items())])
    return pytest.param(kind, options, text, id=id_)


RANGES = [
    *[row(k, r"lr=-1.0 is outside \[0, inf\)", lr=-1.0) for k in ALL],
    *[row(k, r"lr=nan is outside", lr=math.nan) for k in ALL],
    *[row(k, r"lr=inf is outside", lr=math.inf) for k in ALL],
    *[row(k, r"eps=-1e-08 is outside \[0, inf\)", eps=-1e-8) for k in ALL],
    *[row(k, r"weight_decay=-0.1 is outside \[0, inf\)", weight_decay=-0.1) for k in ALL],
    *[row(k, r"betas\[0\]=1.0 is outside \[0, 1\)", betas=(1.0, 0.9)) for k in (AdamW, SophiaG)],
    *[row(k, r"betas\[1\]=1.5 is outside \[0, 1\)", betas=(0.9, 1.5)) for k in (AdamW, SophiaG)],
    *[row(k, r"betas\[0\]=-0.1 is outside", betas=(-0.1, 0.9)) for k in (AdamW, SophiaG)],
    *[row(k, r"betas\[1\]=nan is outside", betas=(0.9, math.nan)) for k in (AdamW, SophiaG)],
    *[row(k, r"must be a pair \(beta1, beta2\)", betas=(0.9,)) for k in (AdamW, SophiaG)],
    row(RMSprop, r"alpha=1.0 is outside \[0, 1\)", alpha=1.0),
    row(RMSprop, r"alpha=-0.5 is outside", alpha=-0.5),
    row(SophiaG, r"rho=-1.0 is outside", rho=-1.0),
    row(SophiaG, r"batch_size=-3", batch_size=-3),
    *[row(k, r"lr is a tensor of shape \(2,\); it must have 1 element", lr=torch.ones(2))
      for k in ALL],
    *[row(k, r"correction='both' is not known; use one of .*'delta'", correction="both")
      for k in ALL],
    row(RMSprop, r"correction='cross_fit' is not known", correction="cross_fit"),
    row(SophiaG, r"correction='closed_form' is not known", correction="closed_form"),
    *[row(k, r"second_moment='mean' is not known; use one of 'square_of_mean'",
          second_moment="mean") for k in (AdamW, RMSprop)],
    *[row(k, r"nonfinite='warn' is not known; use one of 'raise', 'skip', 'ignore'",
          nonfinite="warn") for k in ALL],
    *[row(k, f"{f}=True says how fused=True computes on a CUDA device", **{f: True})
      for k in ALL for f in ("exact", "stochastic_rounding")],
    *[row(k, r"seed=.* is not a seed; pass an integer in \[0, 2\*\*31\)", seed=seed)
      for k in ALL for seed in (-1, 2**31, 1.0, True)],
    *[row(AdamW, f"correction='{c}' is for second_moment='square_of_mean'".replace("+", r"\+"),
          correction=c, second_moment="mean_of_squares")
      for c in ("closed_form", "cross_fit", "cross_fit+delta")],
]  # fmt: skip
FLAGS = [
    *[row(AdamW, rf"AdamW\({f}=True\) is not supported", **{f: True})
      for f in ("amsgrad", "differentiable")],
    *[row(RMSprop, rf"RMSprop\({f}=True\) is not supported", **{f: True})
      for f in ("centered", "differentiable")],
    row(RMSprop, r"RMSprop\(momentum=0.9\) is not supported", momentum=0.9),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "text"), RANGES)
def test_a_value_that_cannot_be_right_is_refused(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind([parameter(2)], **options)


@pytest.mark.parametrize(("kind", "options", "text"), RANGES)
def test_it_is_refused_for_a_single_group_too(kind, options, text):
    with pytest.raises(ValueError, match=text):
        kind([{"params": [parameter(2)], **options}])
    optimizer = kind([parameter(2)])
    with pytest.raises(ValueError, match=text):
        optimizer.add_param_group({"params": [parameter(3)], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(("kind", "options", "text"), FLAGS)
def test_a_flag_of_torch_that_is_not_supported_is_refused_by_name(kind, options, text):
    with pytest.raises(NotImplementedError, match=text):
        kind([parameter(2)], **options)


@pytest.mark.parametrize(("kind", "options", "text"), FLAGS)
def test_a_flag_of_torch_is_refused_for_a_single_group_too(kind, options, text):
    with pytest.raises(NotImplementedError, match=text):
        kind([{"params": [parameter(2)], **options}])


@pytest.mark.parametrize(
    ("kind", "theirs", "options"),
    [
        (AdamW, torch.optim.AdamW, {"amsgrad": True}),
        (RMSprop, torch.optim.RMSprop, {"momentum": 0.9}),
        (RMSprop, torch.optim.RMSprop, {"centered": True}),
    ],
    ids=["amsgrad", "momentum", "centered"],
)
def test_a_checkpoint_with_a_flag_that_is_not_supported_is_refused(kind, theirs, options):
    other = parameter(2)
    reference = theirs([other], **options)
    other.grad = torch.ones(2)
    reference.step()
    optimizer = kind([parameter(2)])
    (flag,) = options
    with pytest.raises(NotImplementedError, match=flag):
        optimizer.load_state_dict(reference.state_dict())
    assert not optimizer.param_groups[0].get(flag)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_flags_that_are_off_are_what_torch_users_may_pass(kind):
    off = {"maximize": False, "foreach": None, "capturable": False}
    if kind is not SophiaG:
        off["differentiable"] = False
    if kind is AdamW:
        off |= {"amsgrad": False, "fused": None}
    if kind is RMSprop:
        off |= {"momentum": 0, "centered": False}
    kind([parameter(2)], **off)
    kind([{"params": [parameter(2)], **off}])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_parameters_and_no_tensors_are_refused_as_torch_refuses_them(kind):
    with pytest.raises(ValueError, match="empty parameter list"):
        kind([])
    with pytest.raises(TypeError):
        kind(parameter(2))
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        kind([3.0])
    with pytest.raises(TypeError, match="ordered collections"):
        kind([{"params": {parameter(2), parameter(2)}}])
    shared = parameter(2)
    with pytest.raises(ValueError, match="more than one parameter group"):
        kind([{"params": [shared]}, {"params": [shared]}])
    with pytest.raises(TypeError, match="bogus"):
        kind([parameter(2)], bogus=1)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_everything_but_the_published_arguments_is_keyword_only(kind):
    with pytest.raises(TypeError, match="positional"):
        kind([parameter(2)], *[0] * 20)


def test_the_edges_of_the_allowed_ranges_are_allowed():
    AdamW([parameter(2)], lr=0, betas=(0.0, 0.0), eps=0.0, weight_decay=0)
    RMSprop([parameter(2)], lr=0, alpha=0.0, eps=0.0, weight_decay=0)
    SophiaG([parameter(2)], lr=0, betas=(0.0, 0.0), eps=0.0, weight_decay=0, rho=0.0)
