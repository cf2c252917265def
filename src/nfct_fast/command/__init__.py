"""The command line: arguments, messages to the operator, and what each subcommand does."""
