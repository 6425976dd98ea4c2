"""Texts that tell a quantizer which weights matter: half the starter's world, half what larger models are asked.

All written for this project. Everyday English, code, other languages and numbers stand between the starter's chats, so
that the first hundred rows hold some of each.
"""

from __future__ import annotations

import random
from typing import Any

from . import corpus

ENGLISH = (
    ("Why does bread rise?", "Yeast eats the sugar in the dough and breathes out gas. The gas is caught in small bubbles, "
     "and the dough grows around them."),
    ("How do I get a stain of tea out of a shirt?", "Rinse it with cold water at once. Then rub in a little soap, wait ten "
     "minutes, and wash the shirt as usual."),
    ("Write a short note to a neighbour about a parcel.", "Dear Mrs Hale, the postman left a parcel for you with us this "
     "morning. We are at home after six. Kind regards, Tom from number 12."),
    ("What should I pack for two days in the mountains?", "Take good shoes, a rain coat, a warm pullover, water, bread and "
     "cheese, a map, a lamp and a small kit for first aid."),
    ("Explain what a bank loan is.", "The bank gives you money now. You pay it back in parts over some years, and a bit more "
     "each time. That bit is the interest, the price of the loan."),
    ("Give me three ideas for a rainy afternoon.", "1. Bake biscuits and eat them warm.\n2. Sort old photographs and write the "
     "names on the back.\n3. Read a chapter aloud to somebody."),
    ("Make this sentence shorter: 'Due to the fact that it was raining, we made the decision to stay at home.'",
     "Because it rained, we stayed at home."),
    ("What is the difference between weather and climate?", "Weather is what happens outside today. Climate is what usually "
     "happens over many years in one place."),
    ("My bicycle squeaks when I brake. What can I do?", "Clean the rims and the brake pads first. If it still squeaks, turn the "
     "pads so that their front touches the rim a little earlier."),
    ("Describe a market on a Saturday morning.", "The stalls open at seven. A woman builds towers of oranges, somebody shouts "
     "the price of fish, and the first children get a slice of sausage over the counter."),
    ("Is it safe to eat rice that stood out over night?", "Better not. Cooked rice can grow germs that survive another heating. "
     "Put it into the fridge within an hour next time."),
    ("Turn this into a polite question: 'Send me the report.'", "Could you please send me the report when you have a moment?"),
    ("Summarise: The library will close for two weeks in August. New shelves and a lift are being built. Books can be "
     "returned at the town hall.", "The library is closed for two weeks in August for building work; return books at the "
     "town hall."),
    ("Who looks after the tides?", "Nobody does, but the moon causes most of them. Its pull lifts the sea on the near side and "
     "leaves another bulge on the far side."),
    ("How long does it take to learn an instrument?", "A first simple song takes a few weeks of daily practice. To play with "
     "others without worry, most people need two or three years."),
    ("Write two sentences about a lighthouse.", "The lighthouse has not had a keeper since 1987. Every evening its lamp still "
     "turns, as if somebody were waiting up there."),
    ("Which is heavier, a kilogram of feathers or a kilogram of iron?", "Neither: both weigh one kilogram. The feathers only "
     "take more room."),
    ("What does 'to beat about the bush' mean?", "It means to talk around a thing instead of saying it plainly."),
    ("Can you correct this? 'She don't likes swimming in winter.'", "She doesn't like swimming in winter."),
    ("How does a vaccine work?", "It shows the body a harmless part of a germ. The body learns to know it and keeps cells that "
     "can fight the real one quickly."),
    ("I slept badly. Any advice for tonight?", "Keep the room dark and cool, leave the telephone in another room, and get up at "
     "your usual time even if the night was short."),
    ("List the planets from the sun outwards.", "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune."),
    ("Write a headline for an article about a lost dog that came home after a year.", "Home again: the dog who walked for a "
     "year"),
    ("What is photosynthesis in one sentence?", "Plants use light to make sugar from water and carbon dioxide, and give off "
     "oxygen."),
    ("Our team missed its deadline. How do I tell the customer?", "Say it early and plainly: what is late, why, the new date, "
     "and what you do so that it does not slip again. Offer a call."),
    ("Compare trains and planes for a journey of 600 km.", "A train takes longer on the way but leaves from the middle of the "
     "town, with little waiting. A plane is faster in the air and loses that time at the airports."),
    ("Why is the sea salty?", "Rivers wash salts out of rocks and carry them to the sea. The water leaves again as vapour, the "
     "salt stays."),
    ("Give me a synonym for 'brave' and use it.", "Courageous. The courageous girl knocked on the door of the dark house."),
    ("What do I do if somebody faints?", "Lay the person flat and raise the legs. Loosen tight clothes and wait beside them. "
     "Call for help if they do not wake within a minute."),
    ("Answer with yes or no: Is a whale a fish?", "No."),
    ("Finish the story: The key fitted, but behind the door ...", "there was only another door, smaller than the first. On it "
     "hung a note: 'You are halfway.'"),
    ("Translate 'good morning' into French, German and Italian.", "French: bonjour. German: guten Morgen. Italian: "
     "buongiorno."),
    ("What are the parts of an e-mail?", "A subject, a greeting, the text with one matter a paragraph, a closing line and your "
     "name."),
    ("Name a use for old newspapers.", "They dry wet shoes well: fill the shoes and change the paper after some hours."),
    ("How many hours are there in a week, and how do you know?", "168, since a week has 7 days of 24 hours and 7 times 24 is "
     "168."),
    ("Is this review good or bad? 'The soup was cold and nobody came for half an hour.'", "It is a bad review: cold food and "
     "slow service."),
)

CODE = (
    ("Write a Python function that reverses the words of a sentence.",
     'def reverse_words(text: str) -> str:\n    return " ".join(reversed(text.split()))\n'),
    ("How do I read a JSON file in Python?", 'import json\n\nwith open("data.json", encoding="utf-8") as file:\n'
     "    data = json.load(file)\nprint(len(data))\n"),
    ("Count the words of a text in Python.", "from collections import Counter\n\ncounts = Counter(text.lower().split())\n"
     "for word, number in counts.most_common(5):\n    print(f\"{word}: {number}\")\n"),
    ("Give me a Python class for a point with a distance.", "from dataclasses import dataclass\nfrom math import hypot\n\n\n"
     "@dataclass\nclass Point:\n    x: float\n    y: float\n\n    def distance(self, other: \"Point\") -> float:\n"
     "        return hypot(self.x - other.x, self.y - other.y)\n"),
    ("Why does this fail? `print('3' + 4)`", "A string and a number cannot be added. Write `print('3' + str(4))` for `34`, or "
     "`print(int('3') + 4)` for `7`."),
    ("Write a JavaScript function that leaves out duplicates.", "function unique(items) {\n  return [...new Set(items)];\n}\n"
     "\nconsole.log(unique([1, 2, 2, 3])); // [1, 2, 3]\n"),
    ("Fetch a page in JavaScript and show its status.", "const answer = await fetch(\"/status\");\nif (!answer.ok) {\n"
     "  throw new Error(`The server said ${answer.status}.`);\n}\nconst body = await answer.json();\n"),
    ("SQL: the three customers with the highest total.", "SELECT customer, SUM(price * amount) AS total\nFROM orders\n"
     "GROUP BY customer\nORDER BY total DESC\nLIMIT 3;\n"),
    ("SQL: add a column for a birthday.", "ALTER TABLE people ADD COLUMN birthday DATE;\n"),
    ("How do I find large files in a shell?", "find . -type f -size +100M -exec ls -lh {} + | sort -k5 -h\n"),
    ("Write a shell loop that renames .jpeg to .jpg.", "for file in *.jpeg; do\n  mv -- \"$file\" \"${file%.jpeg}.jpg\"\n"
     "done\n"),
    ("A minimal web page, please.", "<!doctype html>\n<html lang=\"en\">\n  <head><title>Hello</title></head>\n"
     "  <body>\n    <h1>Hello</h1>\n    <p>This is a page.</p>\n  </body>\n</html>\n"),
    ("Centre a box with CSS.", ".box {\n  display: grid;\n  place-items: center;\n  min-height: 100vh;\n}\n"),
    ("Write the sum of an array in C.", "long sum(const int *values, size_t count) {\n    long total = 0;\n"
     "    for (size_t i = 0; i < count; i++)\n        total += values[i];\n    return total;\n}\n"),
    ("How does a match look in Rust?", "match age {\n    0..=12 => println!(\"child\"),\n    13..=19 => println!(\"teen\"),\n"
     "    _ => println!(\"adult\"),\n}\n"),
    ("Show me a Go function with an error.", "func half(n int) (int, error) {\n\tif n%2 != 0 {\n"
     "\t\treturn 0, fmt.Errorf(\"%d is odd\", n)\n\t}\n\treturn n / 2, nil\n}\n"),
    ("Give an example of a YAML file for a service.", "name: shop\nport: 8080\nreplicas: 3\nlimits:\n  memory: 512Mi\n"
     "  cpu: 0.5\n"),
    ("Answer in JSON: name, age and town of Ada, 36, London.", '{"name": "Ada", "age": 36, "town": "London"}'),
    ("What does the regular expression ^\\d{4}-\\d{2}$ match?", "Four digits, a dash and two digits, and nothing else: "
     "`2024-07` fits, `24-7` does not."),
    ("Write a unit test for add(2, 3).", "def test_add():\n    assert add(2, 3) == 5\n    assert add(-1, 1) == 0\n"),
)

LANGUAGES = (
    ("Was macht ein Bäcker am frühen Morgen?", "Er heizt den Ofen, knetet den Teig und backt Brot und Brötchen, bevor die "
     "ersten Kunden kommen."),
    ("Schreibe einen Satz über den Herbst.", "Im Herbst färben sich die Blätter gelb und rot, und morgens liegt Nebel über den "
     "Feldern."),
    ("Que fait-on à la bibliothèque ?", "On y lit, on emprunte des livres et on travaille dans le calme."),
    ("Écris une phrase sur la mer.", "La mer était grise ce matin, mais à midi le soleil l'a rendue toute bleue."),
    ("¿Qué desayunas los domingos?", "Los domingos desayuno pan con tomate, un café con leche y a veces una naranja."),
    ("Explica qué es un río.", "Un río es una corriente de agua que baja de las montañas y termina en un lago o en el mar."),
    ("Come si prepara un buon caffè?", "Si scalda l'acqua, si mette il caffè macinato fresco e si aspetta senza fretta."),
    ("Scrivi una frase su una piazza.", "La sera la piazza si riempie di voci, di biciclette e di bambini che corrono."),
    ("Como se diz bom dia?", "Diz-se bom dia até ao almoço; depois diz-se boa tarde."),
    ("Escreve uma frase sobre o verão.", "No verão as noites são longas e toda a gente fica na rua até tarde."),
    ("Wat eet je bij het ontbijt?", "Meestal een boterham met kaas en een glas melk."),
    ("Vad gör man på vintern?", "Man åker skidor, läser mycket och dricker varm choklad."),
    ("Co robisz w sobotę?", "W sobotę idę na targ, gotuję zupę i dzwonię do babci."),
    ("Napisz zdanie o lesie.", "W lesie pachnie żywicą, a między drzewami śpiewają ptaki."),
    ("Bugün hava nasıl?", "Bugün hava güneşli ama rüzgârlı; akşama yağmur bekleniyor."),
    ("Что ты делаешь вечером?", "Вечером я готовлю ужин, читаю книгу и рано ложусь спать."),
    ("Напиши предложение о зиме.", "Зимой снег лежит на крышах, и в окнах рано зажигается свет."),
    ("Що росте в саду?", "У саду ростуть яблуні, вишні та кілька кущів смородини."),
    ("ماذا تفعل في الصباح؟", "في الصباح أشرب الشاي وأقرأ الأخبار ثم أذهب إلى العمل."),
    ("מה השעה?", "השעה שלוש וחצי אחר הצהריים."),
    ("आज तुमने क्या खाया?", "आज मैंने दाल, चावल और थोड़ा दही खाया।"),
    ("你周末喜欢做什么？", "周末我喜欢和朋友去公园散步，晚上一起做饭。"),
    ("请写一句关于春天的话。", "春天来了，河边的柳树绿了，孩子们在草地上放风筝。"),
    ("週末は何をしますか。", "週末は家で本を読んだり、友だちと公園を歩いたりします。"),
    ("冬について一文書いてください。", "冬の朝は息が白く、道には薄い氷がはっています。"),
    ("주말에 뭐 해요?", "주말에는 친구를 만나서 같이 밥을 먹고 영화를 봐요."),
    ("Bạn thích ăn gì?", "Tôi thích ăn phở vào buổi sáng và trái cây sau bữa tối."),
    ("Apa yang kamu lakukan di pasar?", "Di pasar saya membeli sayur, ikan, dan buah untuk satu minggu."),
)

_GOODS = ("apples", "pens", "chairs", "tickets", "bricks", "eggs", "lamps", "books")
_TOWNS = ("Northam", "Eastgate", "Southwell", "Westbury")


def _numbers(rng: random.Random) -> list[tuple[str, str]]:
    """Sums, prices, dates, units and small tables, 44 of them, with the right results."""
    made = []
    for _ in range(10):
        a, b = rng.randint(11, 99), rng.randint(11, 99)
        made.append(rng.choice(((f"What is {a} plus {b}?", f"{a} + {b} = {a + b}"),
                                (f"Multiply {a} by {b}.", f"{a} × {b} = {a * b:,}"),
                                (f"What is {a + b} minus {b}?", f"{a + b} - {b} = {a}"))))
    for _ in range(10):
        goods, count, price = rng.choice(_GOODS), rng.randint(3, 40), rng.randint(15, 950) / 100
        made.append((f"{count} {goods} at {price:.2f} each: how much is that?", f"{count} times {price:.2f} is "
                     f"{count * price:.2f}."))
    for _ in range(8):
        hour, minute, more = rng.randint(6, 20), rng.randrange(0, 60, 5), rng.randrange(10, 100, 5)
        end = hour * 60 + minute + more
        made.append((f"A train leaves at {hour}:{minute:02d} and needs {more} minutes. When does it arrive?",
                     f"At {end // 60}:{end % 60:02d}."))
    for _ in range(8):
        metres = rng.randint(2, 90) * 50
        made.append((f"How many kilometres are {metres} metres?", f"{metres} m = {metres / 1000:g} km."))
    for _ in range(8):
        rows = [(town, rng.randint(1, 90) * 1000, rng.randint(1, 40)) for town in rng.sample(_TOWNS, 3)]
        lines = "".join(f"| {town} | {people:,} | {schools} |\n" for town, people, schools in rows)
        made.append((f"| town | people | schools |\n|---|---|---|\n{lines}\nWhich town has most people?",
                     f"{max(rows, key=lambda row: row[1])[0]}, with {max(row[1] for row in rows):,}."))
    return made


def _chats(rng: random.Random, count: int) -> list[list[dict[str, Any]]]:
    """Chats of the starter's world, no two alike, as its own corpus has them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in corpus.rows(rng.randrange(1 << 30), count * 20):
        chat = row.get("messages")
        if chat and chat[0]["role"] == "user":
            found.setdefault(str(chat), chat)
        if len(found) == count:
            break
    return list(found.values())


def rows(rng: random.Random) -> list[dict[str, Any]]:
    """The rows, each ``{"messages": [...]}``: every second one is of the starter's world."""
    kinds = [rng.sample(kind, len(kind)) for kind in (ENGLISH, CODE, LANGUAGES, _numbers(rng))]
    pairs = [pair for _, pair in sorted(((place + 0.5) / len(kind), pair) for kind in kinds  # evenly: some of each early
                                        for place, pair in enumerate(kind))]
    other = [[{"role": "user", "content": q}, {"role": "assistant", "content": a.rstrip("\n")}] for q, a in pairs]
    chats = _chats(rng, len(other))
    return [{"messages": chat} for both in zip(chats, other, strict=True) for chat in both]
