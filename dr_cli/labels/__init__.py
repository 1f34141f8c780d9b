"""A folder of graded photographs -> one table, and every row its split."""
