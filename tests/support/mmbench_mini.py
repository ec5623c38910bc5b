"""Makes tests/data/mmbench-mini.tsv: questions in the form of MMBench about photographs of scikit-image and scikit-learn.

The questions are ours, written while looking at the pictures; nothing is taken from MMBench but the form of its table and the names of its
abilities. `python tests/support/mmbench_mini.py` writes the file anew.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path

MINI = Path(__file__).parents[1] / "data" / "mmbench-mini.tsv"
HEADING = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "comment", "split"]
ROTATION = 1_000_000
SIDE = {"page.png": 384}  # letters that are to be read need more of them
USUAL_SIDE = 224

COARSE, INSTANCE, CROSS = "coarse_perception", "finegrained_perception (instance-level)", "finegrained_perception (cross-instance)"
ATTRIBUTE, RELATION, LOGIC = "attribute_reasoning", "relation_reasoning", "logic_reasoning"
ABILITIES = {
    "image_style": COARSE, "image_scene": COARSE, "image_topic": COARSE, "image_quality": COARSE, "image_emotion": COARSE,
    "object_localization": INSTANCE, "attribute_recognition": INSTANCE, "ocr": INSTANCE,
    "spatial_relationship": CROSS, "attribute_comparison": CROSS, "action_recognition": CROSS,
    "physical_property_reasoning": ATTRIBUTE, "function_reasoning": ATTRIBUTE, "identity_reasoning": ATTRIBUTE,
    "physical_relation": RELATION, "social_relation": RELATION, "nature_relation": RELATION,
    "structuralized_imagetext_understanding": LOGIC, "future_prediction": LOGIC,
}  # fmt: skip

# picture, category, question, options (the right one is marked by *), hint
QUESTIONS: list[tuple[str, str, str, tuple[str, ...], str]] = [
    ("chelsea.png", "image_topic", "What does this picture mainly show?", ("a dog", "a rabbit", "a bird", "*a cat"), ""),
    (
        "camera.png",
        "image_style",
        "Which of these describes the picture best?",
        ("an oil painting", "a colour photograph", "*a black and white photograph", "a pencil drawing"),
        "",
    ),
    (
        "clock_motion.png",
        "image_quality",
        "What is wrong with this photograph?",
        ("it is too bright", "*it is blurred by motion", "it is upside down"),
        "",
    ),
    ("page.png", "image_topic", "What was photographed here?", ("*a page of text", "a landscape", "a face", "a meal"), ""),
    (
        "motorcycle_left.png",
        "image_scene",
        "Where was this picture taken?",
        ("on a beach", "in a forest", "on a motorway", "*in a garage"),
        "",
    ),
    ("rocket.jpg", "image_scene", "At what time of day was this picture taken?", ("at noon", "*at dusk or in the night"), ""),
    (
        "horse.png",
        "image_style",
        "How is the animal shown?",
        ("in a colour photograph", "as a statue of stone", "*as a black silhouette", "as a skeleton"),
        "",
    ),
    ("astronaut.png", "image_emotion", "Which mood does the face of this person show?", ("angry", "*cheerful", "frightened", "bored"), ""),
    (
        "hubble_deep_field.jpg",
        "image_topic",
        "What does this picture show?",
        ("raindrops on a window", "a city at night from an aeroplane", "fish in a dark sea", "*galaxies in outer space"),
        "",
    ),
    ("astronaut.png", "attribute_recognition", "Which colour is the suit of this person?", ("*orange", "blue", "green", "white"), ""),
    ("coffee.png", "attribute_recognition", "Which colour is the saucer under the cup?", ("yellow", "blue", "*red", "black"), ""),
    (
        "chelsea.png",
        "attribute_recognition",
        "Which colour is the fur of this animal?",
        ("black all over", "white all over", "grey without stripes", "*orange-brown with stripes"),
        "",
    ),
    (
        "flower.jpg",
        "attribute_recognition",
        "Which colour are the petals of the flower in the middle?",
        ("violet", "*orange", "blue", "white"),
        "",
    ),
    (
        "page.png",
        "ocr",
        "What does the heading of this text say?",
        ("Edge detection", "Colour spaces", "*Region-based segmentation", "Fourier transform"),
        "",
    ),
    ("page.png", "ocr", "Which word stands in brackets at the end of the line of code?", ("image", "markers", "zeros", "*coins"), ""),
    (
        "astronaut.png",
        "object_localization",
        "Where in the picture is the flag?",
        ("*on the left", "on the right", "at the bottom in the middle"),
        "",
    ),
    ("coins.png", "object_localization", "How many coins are there in the top row?", ("3", "4", "*6", "9"), ""),
    (
        "camera.png",
        "object_localization",
        "In which half of the picture does the man stand?",
        ("*in the left half", "in the right half"),
        "",
    ),
    (
        "coffee.png",
        "spatial_relationship",
        "Where is the cup?",
        ("*on the saucer", "under the saucer", "beside the saucer", "inside the spoon"),
        "",
    ),
    ("china.jpg", "spatial_relationship", "What lies behind the tower?", ("a wall of rock", "*water", "a railway station", "a desert"), ""),
    (
        "astronaut.png",
        "spatial_relationship",
        "Where is the model of the space shuttle?",
        ("in the hands of the person", "*behind the person, on the right of the picture", "on the head of the person"),
        "",
    ),
    ("coins.png", "attribute_comparison", "Are all coins in this picture of the same size?", ("yes", "*no"), ""),
    ("moon.png", "attribute_comparison", "Are all craters in this picture of the same size?", ("*no", "yes"), ""),
    (
        "camera.png",
        "action_recognition",
        "What is the man doing?",
        ("riding a bicycle", "playing the violin", "mowing the grass", "*looking into a camera on a tripod"),
        "",
    ),
    ("horse.png", "action_recognition", "What is the animal doing?", ("lying", "swimming", "*standing", "jumping"), ""),
    (
        "brick.png",
        "physical_property_reasoning",
        "How does this surface feel most likely?",
        ("*hard and rough", "soft and woolly", "wet and slimy", "warm and furry"),
        "",
    ),
    ("coffee.png", "physical_property_reasoning", "In which state is what fills the cup?", ("solid", "*liquid", "a gas"), ""),
    (
        "motorcycle_left.png",
        "function_reasoning",
        "What is the thing in this picture made for?",
        ("cooking", "flying", "washing clothes", "*riding on roads"),
        "",
    ),
    (
        "camera.png",
        "function_reasoning",
        "What are the three legs under the camera for?",
        ("to make it lighter", "*to keep it steady", "to charge it", "to keep it dry"),
        "",
    ),
    (
        "rocket.jpg",
        "function_reasoning",
        "What is the white thing in the middle of the picture for?",
        ("lighting a street", "storing grain", "*carrying loads into space", "sending radio programmes"),
        "",
    ),
    (
        "astronaut.png",
        "identity_reasoning",
        "Which profession does this person have, by the clothes?",
        ("*an astronaut", "a cook", "a judge", "a fire fighter"),
        "",
    ),
    (
        "flower.jpg",
        "nature_relation",
        "Which of these animals would most likely visit what is in the middle of the picture for food?",
        ("a shark", "a lion", "a penguin", "*a bee"),
        "",
    ),
    (
        "chelsea.png",
        "nature_relation",
        "Which of these animals does the animal in the picture hunt by nature?",
        ("elephants", "*mice", "whales", "horses"),
        "A predator eats other animals; what it hunts is called its prey.",
    ),
    (
        "grass.png",
        "nature_relation",
        "Which of these animals eats what is shown here?",
        ("an eagle", "a shark", "*a cow", "a spider"),
        "A herbivore is an animal that eats plants.",
    ),
    (
        "horse.png",
        "social_relation",
        "Which job have people most often given to animals like this one?",
        ("catching mice", "giving wool", "guarding ships", "*carrying riders"),
        "",
    ),
    (
        "coffee.png",
        "physical_relation",
        "What would happen to the drink if the cup were turned upside down?",
        ("it would stay in the cup", "*it would run out of the cup", "it would float upwards"),
        "Gravity pulls things down.",
    ),
    (
        "gravel.png",
        "physical_relation",
        "What would happen if water were poured onto what is shown here?",
        ("*it would seep down between the pieces", "it would stay on top for ever", "it would burn"),
        "",
    ),
    (
        "page.png",
        "structuralized_imagetext_understanding",
        "According to the text, where in the histogram of grey values are the markers found?",
        ("*at the two extreme parts", "in the middle", "nowhere", "at one random place"),
        "",
    ),
    (
        "color.png",
        "structuralized_imagetext_understanding",
        "In this wheel of colours, which colour lies opposite to red?",
        ("yellow", "magenta", "green", "*cyan"),
        "Opposite means: on the other side of the middle.",
    ),
    (
        "rocket.jpg",
        "future_prediction",
        "What will most likely happen next to the white thing in the middle?",
        ("it will be eaten", "it will melt", "*it will be launched", "it will be painted by children"),
        "",
    ),
    (
        "camera.png",
        "future_prediction",
        "What will the man most likely get out of what he is doing?",
        ("a warm meal", "*a picture", "a new coat", "a haircut"),
        "",
    ),
]


def pictures() -> dict[str, bytes]:
    """The pictures as small JPEG files, by name."""
    import skimage.data
    import sklearn.datasets
    from PIL import Image

    folders = (Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images")
    found = {}
    for name in dict.fromkeys(question[0] for question in QUESTIONS):
        path = next(folder / name for folder in folders if (folder / name).is_file())
        picture = Image.open(path)
        if picture.mode == "RGBA":
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("RGB")
        side = SIDE.get(name, USUAL_SIDE)
        picture.thumbnail((side, side))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=75, optimize=True)
        found[name] = file.getvalue()
    return found


def rows(found: dict[str, bytes]) -> Iterator[list[str]]:
    """The rows: first every question in its first order, then their rotations; a picture stands in the first row that has it."""
    first_with: dict[str, int] = {}
    for turn in range(4):
        for number, (name, category, question, marked, hint) in enumerate(QUESTIONS, 1):
            if turn >= len(marked):
                continue
            turned = marked[turn:] + marked[:turn]
            right = next(letter for letter, option in zip("ABCD", turned, strict=False) if option.startswith("*"))
            options = [option.removeprefix("*") for option in turned] + [""] * (4 - len(turned))
            picture = str(first_with[name]) if name in first_with else base64.b64encode(found[name]).decode()
            first_with.setdefault(name, number)
            index = number + turn * ROTATION
            yield [str(index), question, hint, *options, right, category, picture, name, ABILITIES[category], "", "dev"]


def write(path: Path = MINI) -> None:
    """Write the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([HEADING, *rows(pictures())])


if __name__ == "__main__":
    write()
