"""Teacher and student training: the losses of the paper and what it compares with."""
