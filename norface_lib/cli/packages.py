"""Packages that the commands need: those of every command, and those of each extra."""

CORE = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "filelock": "filelock",
    "typer": "typer",
    "tqdm": "tqdm",
}
"""Modules that every command needs, and the packages that bring them."""

EXTRAS = {
    "photos": {
        "ai_edge_litert": "ai-edge-litert",
        "av": "av",
        "pi_heif": "pi-heif",
        "insightface": "insightface",
        "onnxruntime": "onnxruntime",
        "onnx": "onnx",
        "onnx2torch": "onnx2torch",
        "skimage": "scikit-image",
    },
    "parquet": {"pyarrow": "pyarrow"},
    "render": {
        "anny": "anny",
        "warp": "warp-lang",
        "skimage": "scikit-image",
    },
    "notebooks": {
        "jupyterlab": "jupyterlab",
        "ipykernel": "ipykernel",
        "ipywidgets": "ipywidgets",
        "papermill": "papermill",
        "nbconvert": "nbconvert",
        "nbformat": "nbformat",
        "nbstripout": "nbstripout",
        "matplotlib": "matplotlib",
        "seaborn": "seaborn",
        "skimage": "scikit-image",
        "yaml": "PyYAML",
    },
}
"""Modules and packages of each extra."""
