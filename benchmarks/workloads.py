"""The layers of the named workloads (docs/architecture.md), as (m, k, n, activation)."""

SNIPPET = [
    (64, 100, 128, "relu"),
    (64, 128, 784, "tanh"),
    (64, 784, 128, "relu"),
    (64, 128, 1, "identity"),
]
MNIST_PAPER = [
    (100, 100, 1200, "relu"),
    (100, 1200, 1200, "relu"),
    (100, 1200, 784, "sigmoid"),
    (100, 240, 1, "identity"),
]
# (m, k, units, pieces)
MNIST_PAPER_MAXOUT = [(100, 784, 240, 5), (100, 240, 240, 5)]

LAYERS = [("snippet", *layer) for layer in SNIPPET] + [("mnist_paper", *layer) for layer in MNIST_PAPER]
# Parameters of the two networks.
PARAMETERS = {
    "snippet G": 114_064,
    "snippet D": 100_609,
    "mnist_paper G": 2_504_184,
    "mnist_paper D": 1_231_441,
}
