"""Names for the passes that tell a case with other people and firms (`swap.enabled`): real and made-up ones.

What: `people` and `firms` give as many names as are asked for, the made-up ones of syllables and of pairs of words,
always the same ones.
Why: a model that has only seen a hundred names learns to choose among them, and reads a new one as the nearest of those
that it knows. Names of which each is seen once or twice can only be copied, which is what a reader's case needs.
Not covered: names of several words, other scripts.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from itertools import chain

REAL = """
Abdul Adele Adrian Agnes Ahmed Alan Alba Alfred Alice Alma Amara Amina Amir Amos Ana Anders Andre Anita Annika Anton
April Archie Ariana Arjun Arlo Armando Arnold Arun Asher Astrid Aurora Axel Ayaan Beatrice Bella Bernard Bertha Bianca
Bjorn Blake Bonnie Boris Brett Bridget Bruno Caleb Calvin Camila Carla Carlos Carmen Caroline Cecil Cecilia Celia Chad
Chandra Chen Chester Chloe Claire Claude Claudia Clifford Clyde Colin Connor Cora Corey Craig Curtis Cyrus Daisy Dale
Damian Dana Darius Darren Dawn Dean Deepak Delia Derek Desmond Dewey Dimitri Dominic Dora Doris Dwight Earl Edgar Edith
Edna Eduardo Edwin Eileen Elaine Eleanor Eli Ella Elliot Elsa Elvira Enrique Erica Erik Erin Ernest Esther Ethan Eva Eve
Fabian Faith Farid Faye Felicia Fernando Fiona Flora Floyd Frances Francis Frederick Frieda Gabriel Gavin Gemma Geoffrey
Gerard Gilbert Gina Giovanni Glenn Gordon Grant Guillermo Gustav Guy Gwen Hana Hans Harriet Harry Harvey Hassan Hazel
Hector Heidi Herbert Herman Hilda Hiroshi Holly Howard Ian Ida Igor Imran Ines Irene Irma Isaac Ivan Ivy Jackie Jaime
Jamal Jana Jane Jared Jasmine Javier Jay Jean Jeff Jenna Jeremy Jesse Jill Jim Jin Joanna Joel Johan Jonas Jordan Jorge
Josephine Joy Juan Juanita June Jun Kai Kamal Kara Karl Kate Katrina Kay Keiko Ken Kenji Kent Kerry Kim Kiran Klaus Kurt
Lance Lara Lars Lea Leah Leila Lena Leo Leon Leroy Leslie Lewis Lila Lillian Lily Liz Lloyd Lois Lola Lorenzo Louis
Louise Lucia Lucy Luis Luke Lydia Lyle Mabel Mack Madeline Mae Malcolm Malik Manuel Mara Marcel Marco Margot Mariam
Marie Marina Mario Marion Marjorie Marlene Marsha Marta Martin Marvin Matilda Maurice Mavis Max Mei Melvin Mercedes
Meredith Mika Mildred Miles Milo Min Minnie Miriam Mitchell Mohamed Moira Mona Monica Morris Muhammad Murray Myra Myrtle
Naomi Natasha Neil Nell Neville Nicole Nigel Nikolai Nina Noel Nora Norma Norman Olga Oscar Otis Otto Owen Pablo Pam
Pamela Pascal Patty Pearl Peggy Penelope Percy Perry Pete Peter Petra Phoebe Phyllis Pierre Rafael Raj Ramona Ramon Raul
Ray Regina Rene Rex Rhonda Ricardo Rita Roberta Rodney Roland Roman Ron Rosa Rosemary Ross Roxanne Ruben Ruby Rudolf
Rufus Rupert Sabrina Sadie Salim Sally Salma Sam Samir Sanjay Saul Scarlett Sean Selma Serena Sergei Seth Shane Shannon
Shawn Sheila Sherry Shirley Sidney Silas Silvia Sita Sonia Stacy Stan Stella Stuart Sunil Sven Sylvia Tamara Tanya Tara
Ted Thelma Tina Todd Tom Tomas Tony Tracy Trevor Troy Ursula Valerie Vanessa Vera Vernon Vicki Victor Vijay Viola Violet
Virgil Vivian Wade Wanda Warren Wendy Wesley Wilbur Wilma Xavier Yasmin Yolanda Yosef Yusuf Yvonne Zane Zara Zelda Zoe
""".split()
ONSETS = "b c d f g h j k l m n p r s t v w y z b d k l m n r s t br ch cl dr gr kr sh st th tr".split()
VOWELS = "a a a e e e i i i o o u ai ea ia".split()
ENDS = ["", "", "", *"l n r s t d m n l r ck rd nd".split()]
FIRST = """Amber Apex Arrow Ash Bay Birch Black Bright Cedar Clear Cliff Cloud Copper Coral Crystal Dawn Deep Eagle East
Elm Ember Fair Fern Field Fire Forest Fox Frost Glen Gold Gray Green Hawk Hazel High Hill Horizon Ivory Jade Lark Maple
Marble Mill Moon Moss Night North Oak Ocean Onyx Opal Pearl Pine Prime Quartz Rain Raven Ridge River Rock Rose Sage Salt
Sand Silver Sky Slate Snow Solar South Spring Star Stone Storm Sun Swift Thorn Tide Timber True Vale Violet West White
Wild Willow Wind Winter Wolf""".split()
SECOND = """
bridge brook crest dale edge fall field ford forge gate grove haven hurst land light line mark mere mont path peak
point port ridge rock shore side spire stead stone stream vale view ville wall water way well wick wind wood worth
yard
""".split()


def _made(rng: random.Random) -> Iterator[str]:
    while True:
        syllables = (rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2, 2, 2, 3))))
        name = ("" if rng.random() < 0.8 else rng.choice("aeiou")) + "".join(syllables) + rng.choice(ENDS)
        if 4 <= len(name) <= 8:
            yield name.capitalize()


def _joined(rng: random.Random) -> Iterator[str]:
    made = _made(rng)
    while True:
        yield next(made) if rng.random() < 0.4 else rng.choice(FIRST) + rng.choice(SECOND)


def _first(names: Iterator[str], count: int, taken: Collection[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    while len(found) < count:
        if (name := next(names)) not in taken:
            found.setdefault(name)
    return tuple(found)


def people(count: int, taken: Collection[str] = ()) -> tuple[str, ...]:
    """The first `count` names of persons that are not `taken`, real ones first."""
    return _first(chain(REAL, _made(random.Random("people"))), count, taken)


def firms(count: int, taken: Collection[str] = ()) -> tuple[str, ...]:
    """The first `count` names of firms that are not `taken`."""
    return _first(_joined(random.Random("firms")), count, taken)
