"""Sandboxes: the protocol (:mod:`.base`), the OCI driver (:mod:`.oci`), images and their layers."""
