"""What a lesson needs besides the subject: its start, checks with hints, controls, cases."""
