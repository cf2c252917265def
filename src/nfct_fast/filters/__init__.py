"""The filter language: from its words to programs that the kernel and the reading thread run on each flow."""
