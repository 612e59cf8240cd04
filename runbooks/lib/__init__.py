"""The toolkit: no task, no service by name, no Pulumi SDK, and no printing outside `render.py`."""
