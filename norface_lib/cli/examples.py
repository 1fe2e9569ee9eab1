"""Examples of every command, which its help ends with. A test reads each as the command would."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "predict": (
        "norface predict me.jpg out",
        "norface predict holiday out --all-faces --page",
        "norface predict monday/*.jpg interview.mp4 out --format parquet --overlay",
        "norface predict interview.mp4 out --start 60 --end 90 --every 5 --device cuda",
    ),
    "normalize": (
        "norface normalize holiday out --detector mediapipe --weights tiny-photo",
        "norface normalize /your/BP4D out --layout bp4d --points points/points.csv",
        "norface normalize faces out --draw render --target ada --size 512",
    ),
    "align": (
        "norface align holiday aligned --all-faces",
        "norface align /your/BP4D points --layout bp4d --task au_detection",
    ),
    "anonymize": (
        "norface anonymize interview.mp4 shown.mp4",
        "norface anonymize interview.mp4 face.mp4 --layout normalized --target ada",
        "norface anonymize me.jpg shown.png --embedding arcface",
    ),
    "wipe": (
        "norface wipe out/aligned out/normalized/noor shown.webp",
        "norface wipe out/aligned out/normalized/noor rendered/noor shown.gif --faces 6",
    ),
    "train": (
        "norface train /your/DISFA out --dataset disfa --points points/points.csv --seeds 0,1,2",
        "norface train lab out --task au_intensity --loss mse+ccc",
        "norface train /your/BP4D out --dataset bp4d --test-dataset disfa --test-root /your/DISFA",
        "norface train /your/DISFA out --dataset disfa --option camera=right --profile paper",
        "norface train lab out --backbone tuned --epochs 10 --batch-size 32 --accumulate 4",
        "norface train lab out --config settings.yaml --experts 8 --top-k 2 --export csv,latex",
    ),
    "sweep": ("norface sweep studies.yaml out --workers 2",),
    "train-normalizer": (
        "norface train-normalizer pretrain out --device cuda",
        "norface train-normalizer pretrain out --start tiny --faces aligned --term expression=1",
    ),
    "train-encoder": (
        "norface train-encoder /your/faces out --steps 20000 --device cuda",
        "norface train-encoder /your/BP4D out --layout bp4d --points points/points.csv",
    ),
    "train-reader": (
        "norface train-reader out faces press/train --share 0.6 --share 0.4 --calibrate others",
    ),
    "train-sides": ("norface train-sides out one-sided --calibrate others",),
    "train-evaluator": ("norface train-evaluator people out --steps 3000",),
    "evaluate normalizer": (
        "norface evaluate normalizer --weights tiny --domain lab",
        "norface evaluate normalizer --weights out/tiny.safetensors --domain wild --json",
    ),
    "evaluate photographs": (
        "norface evaluate photographs pairs/test --weights tiny-photo --sheet sheet.png",
    ),
    "evaluate readers": (
        "norface evaluate readers pairs/test --reader tiny-photo-au+tiny-photo-intensity+"
        "tiny-photo-emotion --reader my-reader.safetensors --out readers.json",
    ),
    "evaluate groups": (
        "norface evaluate groups rendered",
        "norface evaluate groups pairs/test --groups people.csv --out groups.json",
    ),
    "evaluate transfer": (
        "norface evaluate transfer pairs/test --train rendered --weights tiny-photo",
    ),
    "render": (
        "norface render lab --subjects 30 --frames 30",
        "norface render pretrain --pool pretrain --subjects 400 --frames 10 --seed 1",
    ),
    "fetch": ("norface fetch lfw photographs",),
    "pseudo-pairs": (
        "norface pseudo-pairs aligned pairs --table photographs/people.csv",
        "norface pseudo-pairs aligned taught --table votes.csv --teacher rendered --no-truths",
    ),
    "join": ("norface join both pretrain pairs/train",),
    "write-as": ("norface write-as disfa lab out --variant video",),
    "export": (
        "norface export tiny-photo tiny-photo-au tiny-photo-emotion faces.onnx",
        "norface export tiny tiny.onnx --opset 17",
    ),
    "push": ("norface push my-normalizer.safetensors my-reader.safetensors owner/name --dry-run",),
    "inspect": (
        "norface inspect bp4d /your/BP4D --task au_detection",
        "norface inspect folder holiday --check",
        "norface inspect affectnet /your/AffectNet --option classes=7",
    ),
    "doctor": ("norface doctor", "norface doctor --json"),
    "reproduce": (
        "norface reproduce --profile smoke",
        "norface reproduce --photos faces",
        "norface reproduce --only 05",
    ),
    "publish": (
        "norface publish --profile quick",
        "norface publish --address https://github.com/OWNER/norface",
    ),
    "results": (
        "norface results --table emotion --format latex",
        "norface results --format csv --out tables",
        "norface results --write",
    ),
    "bench": ("norface bench", "norface bench normalize classify"),
}
