"""Packages and environment variables that `doctor` looks for."""

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
    "joblib": "joblib",
    "cv2": "opencv-python",
    "yaml": "PyYAML",
    "filelock": "filelock",
    "PIL": "pillow",
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
        "psutil": "psutil",
    },
}
"""Modules and packages of each extra."""

FOLDERS = {
    "NORFACE_MODELS": "networks of other people, such as MediaPipe's landmarker",
    "NORFACE_PHOTOS": "photographs for this project's tests",
    "NORFACE_RUNS": "everything that runs write; default: runs/",
    "NORFACE_WEIGHTS": "weights of yours, searched before the shipped ones",
}
"""Environment variables that name folders, and what lies there."""

SETTINGS = {
    "OMP_NUM_THREADS": "threads of each process; default: one per core",
    "NORFACE_DEBUG": "1: errors show their traceback",
    "NORFACE_TENSORBOARD": "1: trainings log to TensorBoard too",
}
"""Other environment variables."""
