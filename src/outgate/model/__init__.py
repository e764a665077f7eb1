"""Values of the domain: frozen, slotted, without I/O. Everything above speaks in these."""
