"""What people look at: terminal tables, pictures and trace files, and the writing of every output file."""
