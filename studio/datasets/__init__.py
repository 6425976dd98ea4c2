"""Reading training data: files to rows, rows to one of a few canonical shapes. Imports no torch and no pandas."""
