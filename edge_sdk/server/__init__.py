"""The fleet server: registry, rollouts, event log and a page that shows them."""
