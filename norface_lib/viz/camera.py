"""A snapshot from the reader's camera, taken by the browser and handed to the kernel.

No widget of ipywidgets opens a camera. Here a text field that is not shown carries the picture: the
browser writes it there as a data URI, and the kernel reads it as it would read typed words. So
there is no package to install, and it works wherever ipywidgets and cameras do (a page over https,
or from this machine).
"""

import base64
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from norface_lib.common.errors import needs

with needs("notebooks"):
    import ipywidgets

CONSENT = (
    "I am the one in front of the camera, or who is has agreed. The picture goes to the machine "
    "that runs this notebook, and is kept there until its kernel ends."
)
"""What a reader agrees to before the camera is opened."""

_BOX = "norface-camera"

_START = """
const box = this.closest('.norface-camera'), video = box.querySelector('video');
const say = text => { box.querySelector('output').textContent = text };
const reasons = { NotFoundError: 'none was found', NotAllowedError: 'the browser may not use it',
  NotReadableError: 'another program may be using it' };
if (!navigator.mediaDevices) { say('A browser opens cameras only for https or for this machine.') }
else navigator.mediaDevices.getUserMedia({ video: { facingMode: 'user' } }).then(
  stream => { video.srcObject = stream; video.hidden = false; say('');
    box.querySelector('[name=snap]').disabled = false },
  error => say('The camera cannot be opened: ' + (reasons[error.name] || error.message)));
"""

_SNAP = """
const box = this.closest('.norface-camera'), video = box.querySelector('video');
const canvas = document.createElement('canvas'), field = box.querySelector('textarea');
canvas.width = video.videoWidth; canvas.height = video.videoHeight;
canvas.getContext('2d').drawImage(video, 0, 0);
video.srcObject.getTracks().forEach(track => track.stop());
video.srcObject = null; video.hidden = true; this.disabled = true;
field.value = canvas.toDataURL('image/jpeg', 0.92);
for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }));
"""

_AGREE = "this.closest('.norface-camera').querySelector('[name=start]').disabled = !this.checked"

_HTML = f"""<details data-lm-suppress-shortcuts="true">
<summary style="cursor:pointer">your camera</summary>
<label><input type="checkbox" onchange="{escape(_AGREE)}"> {CONSENT}</label><br>
<button type="button" name="start" disabled onclick="{escape(_START)}">open the camera</button>
<button type="button" name="snap" disabled onclick="{escape(_SNAP)}">take the picture</button>
<output></output><br>
<video width="280" autoplay playsinline muted hidden aria-label="what the camera sees"></video>
</details>"""


def camera(take: Callable[[bytes], None]) -> ipywidgets.Widget:
    """A camera behind a question for consent. ``take`` gets each picture, encoded as JPEG; the
    camera is closed after it."""
    field = ipywidgets.Textarea(layout={"display": "none"})

    def taken(change: Mapping[str, Any]) -> None:
        address = change["new"]
        if not address:
            return
        field.value = ""
        take(base64.b64decode(address.partition("base64,")[2]))

    field.observe(taken, "value")
    box = ipywidgets.VBox([ipywidgets.HTML(_HTML), field])
    box.add_class(_BOX)
    return box
