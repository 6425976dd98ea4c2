"""Jobs: every piece of work runs in a process of its own, watched by a guardian, told by one event file."""
