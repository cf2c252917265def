"""What tests share: namespaces and containers, the running program, makers of flows, attackers, a fake /proc."""
