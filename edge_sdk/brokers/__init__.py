"""Production brokers: who may connect, and what each may read and write."""
