"""Records of what was made: whole files, checksums, claims, provenance, and what lies where in results/."""
