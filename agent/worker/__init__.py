"""The process that runs native runtimes, and the handle the supervisor holds on it."""
