(** Interval arithmetic over Coq's own integers.

    The tactic [interval] computes with the processor's floating-point numbers or with 63-bit
    integers, whose behavior is assumed by axioms. With a precision given, the one of this file
    computes with integers that are defined in Coq, and needs no axiom beyond the reals. *)

From Interval Require Export Tactic.
From Interval Require Import Float.Specific_stdz Float.Specific_ops.

Module Plain := SpecificFloat StdZRadix2.
Module PlainInterval := IntervalTactic Plain.
Export PlainInterval.
