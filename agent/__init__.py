"""On-device agent: supervisor, worker, pipelines, governor and updates."""
