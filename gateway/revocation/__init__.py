"""What was believed and is no more: said once where it changed, heard by every process, applied in each."""
