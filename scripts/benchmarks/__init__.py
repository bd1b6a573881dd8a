"""What ``scripts/bench`` runs: fleche beside its peers, and beside what the machine can do."""
