"""Results in a notebook: what they say at a glance, and sliders through them."""
