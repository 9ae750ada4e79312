"""Function and class templates for training; the evaluation on unseen functions uses none of them."""
