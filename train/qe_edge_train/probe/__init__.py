"""Which layer is worth tapping? A closed-form head on every layer of a decoder, measured on dev rows."""
