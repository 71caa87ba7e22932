"""From archives to examples: what each kind of config plans to read, and how it makes an example of it."""
