"""The names of the models that manifests pin. Imports nothing, since the help of commands lists them."""

MANIFESTS = {  # name -> manifest
    "mini": "mini",
    "micro": "micro",
    "smollm2": "smollm2-135m",
    "tinyllama": "tinyllama-1.1b",
    "tinyllama-shape": "tinyllama-shape",
}
SYNTHETIC_MODELS = ("mini", "micro", "tinyllama-shape")
"""Those whose weights come from a seed."""
