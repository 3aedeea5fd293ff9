"""What makes keys in fastecdsa."""

from fastecdsa import refuse

PEMEncoder = None
gen_private_key = get_public_key = export_key = refuse
