"""The recipe of the bundled mini model: buggy repositories, episodes, training, export, evaluation."""
