"""What is installed beside the code: the systemd unit, and the manual page; what generates that is in no wheel."""
