"""False versions of the theory of expansions, kernels and matrices: file, old, new, why."""

MATRIX_MUTANTS = (
    (
        "expansion",
        "(/ a) (- (b / a ^ 2)) (b ^ 2 / a ^ 3 - c / a ^ 2).",
        "(/ a) (- (b / a ^ 2)) (b ^ 2 / a ^ 3 + c / a ^ 2).",
        "a sign in the second order of 1/f",
    ),
    (
        "expansion",
        "(c / (2 * sqrt a) - b ^ 2 / (8 * sqrt a ^ 3)).\nProof.",
        "(c / (2 * sqrt a) - b ^ 2 / (4 * sqrt a ^ 3)).\nProof.",
        "a quarter in the second order of a root",
    ),
    (
        "matrix_expansion",
        "matrix_expands d (fun t => X t ** Y t) (A ** A') (add (A ** B') (B ** A'))",
        "matrix_expands d (fun t => X t ** Y t) (A ** A') (add (A ** B') (A' ** B))",
        "factors exchanged in the first order of a product",
    ),
    (
        "spectral_map",
        "    (2 * second (root q l) (root q l) (root q l)).",
        "    (second (root q l) (root q l) (root q l)).",
        "f'' called f''/2",
    ),
    (
        "spectral_map",
        "  = h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b)).",
        "  = h3 (S n) a k b / (a * b * (h n a b * h n a k * h n k b)).",
        "the inner root forgotten",
    ),
    (
        "kernel_equation",
        "  - (h3 (q - 1) a k b / (h (q - 1) a b * h (q - 1) a k * h (q - 1) k b)).",
        "  (h3 (q - 1) a k b / (h (q - 1) a b * h (q - 1) a k * h (q - 1) k b)).",
        "the second order of a root with the wrong sign",
    ),
    (
        "kernel_equation",
        "Theorem inverse_root_is_unique d p x H Y1 Y2 : (1 <= p)%nat ->\n"
        "  (forall i, (i < d)%nat -> 0 < x i) ->",
        "Theorem inverse_root_is_unique d p x H Y1 Y2 : (0 <= p)%nat ->\n"
        "  (forall i, (i < d)%nat -> 0 < x i) ->",
        "uniqueness for the power zero",
    ),
    (
        "dense_kernel",
        "(f1 b - quotient a b) / (b - a).",
        "(f1 a - quotient a b) / (b - a).",
        "the slope at the other end",
    ),
    (
        "dense_kernel",
        "  ((k - a) * confluent a k + (b - k) * confluent b k) / (b - a).",
        "  ((b - k) * confluent a k + (k - a) * confluent b k) / (b - a).",
        "the weights exchanged",
    ),
    (
        "safe_matrix",
        "P * (P + X)^-1 * P = P - X + X * (P + X)^-1 * X.",
        "P * (P + X)^-1 * P = P - X + X * (P + X)^-1 * P.",
        "a rest of first order",
    ),
    (
        "function_jet",
        "(A i j * (3 / 2 * a * a - 1 / 2 * b) - E i j * a)",
        "(A i j * (1 / 2 * a * a - 1 / 2 * b) - E i j * a)",
        "a coefficient in the second order of X/|X|",
    ),
)
