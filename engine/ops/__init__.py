"""Operations of the forward pass: one file per group, each with its torch reference."""
