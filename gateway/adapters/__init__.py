"""The gateway's shell: each module implements one port with one vendor, and lets no vendor's exception out."""
