"""What tests share: namespaces and containers, programs at work, makers of flows, attackers, and a /proc of plain
files."""
