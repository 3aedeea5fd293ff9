"""What builds and checks this repository: tables, the site, mutants, pictures."""
