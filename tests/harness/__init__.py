"""What tests share: builders of chains, engines, processes, attackers."""
