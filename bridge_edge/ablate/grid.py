"""The named experiments: which arms are compared, and what is claimed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bridge_edge.ablate.arms import CHANCE, Arm, Claim, Experiment, asking, bridge, direct, percent, share_of, unaided
from bridge_edge.data.pool import build_splits
from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe

BUDGETS = (16, 32, 64)  # of reasoning, where the recipe names none
SKEW = 1.5  # of an uneven pool: with eight kinds half of the items are of one, and two in a hundred of the rarest
EXPLAINED = 2000  # items of a pool of one's own that the assistant explains in a round, where the recipe names none
SHARES = (0.01, 0.03, 0.05, 0.1, 0.2, 1.0)
STRATEGIES = ("bridge", "greedy", "difficulty", "diversity", "facility-location", "kmeans", "typiclust")
UNFILTERED = (
    "annotate.keep=all", "annotate.arithmetic=false", "annotate.surest=1", "annotate.reader=false",
    "annotate.near_duplicate=null", "annotate.longest=null", "annotate.samples=1", "annotate.tellings=1",
    "annotate.agreement=0", "annotate.steps=false",
)  # fmt: skip
BEST, LEAST = 0.41, 0.28
"""Relative gains that BRIDGE (arXiv 2512.20403) reports over direct distillation at the same budget."""


def budget_vs_random(recipe: Recipe) -> Experiment:
    arms, claims = [], []
    for share in (0.03, 0.05):
        words = asking(recipe, share)
        for who, label in (("student", "student"), ("ta", "assistant")):
            ours, chance = (f"{how}, {percent(share)}, {label}" for how in ("selected", "random"))
            arms += [Arm(ours, words, who, share), Arm(chance, (*words, *CHANCE), who, share)]
            text = f"at {percent(share)} the {label} is better where the items are selected than where they are random"
            claims.append(Claim(text, ours, chance))
    question = "Is a selected budget worth more than a random one of the same size?"
    return Experiment("budget-vs-random", question, tuple(arms), tuple(claims))


def alignment(recipe: Recipe) -> Experiment:
    arms = (Arm("with alignment", ("align.enabled=true",)), Arm("without alignment", ("align.enabled=false",)))
    names = (arms[0].name, arms[1].name)
    claims = (
        Claim("alignment makes more answers readable", *names, of="parsed"),
        Claim("alignment makes the student more accurate", *names),
    )
    return Experiment("alignment", "What does instruction alignment of the student give?", arms, claims)


def direct_vs_bridge(recipe: Recipe) -> Experiment:
    ours, same, ten, all_ = (bridge(recipe, 0.05), *(direct(recipe, share) for share in (0.05, 0.5, 1.0)))
    base = unaided(recipe, 0.05)
    gain = BEST if recipe.name == "legal" else LEAST
    claims = (
        Claim(f"BRIDGE gains at least {percent(gain)} over direct at 5 %", ours.name, same.name, gain=gain),
        Claim(
            f"BRIDGE gains at least {percent(gain)} over a base model shown the same", ours.name, base.name, gain=gain
        ),
        Claim("BRIDGE at 5 % is better than direct at 5 %", ours.name, same.name),
        Claim("BRIDGE at 5 % is at least equal to direct at 50 %", ours.name, ten.name, equal=True),
        Claim("BRIDGE at 5 % is at least equal to direct at 100 %", ours.name, all_.name, equal=True),
    )
    question = "Does the detour over the assistant pay?"
    return Experiment("direct-vs-bridge", question, (ours, same, base, ten, all_), claims)


def selection(recipe: Recipe) -> Experiment:
    control = Arm("random", CHANCE)
    arms = [Arm(name, (f"select.strategy={name}",)) for name in STRATEGIES]
    claims = tuple(Claim(f"{arm.name} is better than random", arm.name, control.name) for arm in arms)
    question = "Which way of choosing what is asked makes the best student?"
    return Experiment("selection", question, (*arms, control), claims)


def budgets(recipe: Recipe) -> Experiment:
    arms = [make(recipe, share) for share in SHARES for make in (bridge, direct)]
    five, most = bridge(recipe, 0.05).name, direct(recipe, 1.0).name
    claims = [Claim(f"BRIDGE is better than direct at {percent(s)}", bridge(recipe, s).name, direct(recipe, s).name)
              for s in SHARES]  # fmt: skip
    claims.append(Claim("BRIDGE at 5 % is at least equal to direct at 100 %", five, most, equal=True))
    question = "How does accuracy grow with what the teacher is asked?"
    return Experiment("budgets", question, tuple(arms), tuple(claims))


def filters(recipe: Recipe) -> Experiment:
    half = recipe.task.max_new_tokens // 2
    each = {
        "right answers": ("annotate.keep=answer",),
        "true arithmetic": ("annotate.arithmetic=true",),
        "surest 70 %": ("annotate.surest=0.7",),
        "surest 70 %, second reader": ("annotate.surest=0.7", "annotate.reader=true"),
        "no near-duplicates": ("annotate.near_duplicate=0.7",),
        f"few above {half} tokens": (f"annotate.longest={half}",),
        "vote of 4 drafts": ("annotate.samples=4",),
        "answers and arithmetic": ("annotate.keep=answer", "annotate.arithmetic=true"),
    }
    if recipe.swap.enabled:
        each["surest 70 % of 3 tellings"] = ("annotate.surest=0.7", "annotate.tellings=3", "swap.enabled=true")
    if recipe.generated:  # no filter that a user has, but what all of them are after
        each["true steps, by the checker"] = ("annotate.keep=answer", "annotate.steps=true")
    none = Arm("no filter", UNFILTERED)
    arms = [Arm(name, (*UNFILTERED, *words)) for name, words in each.items()]
    claims = [Claim(f"{arm.name}: better than no filter", arm.name, none.name) for arm in arms]
    if recipe.annotate.read_again:
        own, alone = Arm("as the recipe has it"), Arm("the same without the second reader", ("annotate.reader=false",))
        arms += [own, alone]
        claims.append(Claim("the second reader makes the student better", own.name, alone.name))
    question = "Which annotations of the assistant should the student not learn from?"
    return Experiment("filters", question, (none, *arms), tuple(claims))


def assistants(recipe: Recipe) -> Experiment:
    own = Arm("assistant of the recipe")
    small = Arm("assistant of the student's size", (f"ta.model={recipe.student.model}",))
    without = Arm("no assistant (direct)", direct(recipe, share_of(recipe)).words, "baseline")
    claims = (
        Claim("an assistant is better than none", own.name, without.name),
        Claim("a small assistant is better than none", small.name, without.name),
        Claim("the larger assistant is better than the small one", own.name, small.name),
    )
    question = "What does the assistant give, and does its size matter?"
    return Experiment("ta", question, (own, small, without), claims)


def shift(recipe: Recipe) -> Experiment:
    kinds = sorted({s.kind for s in build_splits(recipe)[0]["pool"]})
    if len(kinds) < 2:
        raise UserError(
            f"the pool of {recipe.name} has one kind of items, so nothing can shift",
            "leave `shift` out, or give the data a column that names kinds",
        )
    words = (f"warmup.kinds={kinds[::2]}",)
    arms = (
        Arm("warm-up on all kinds, selected"),
        Arm("warm-up on all kinds, random", CHANCE),
        Arm("warm-up on half the kinds, selected", words),
        Arm("warm-up on half the kinds, random", (*words, *CHANCE)),
    )
    names = [arm.name for arm in arms]
    claims = (
        Claim("selection is better than random after a warm-up on all kinds", names[0], names[1]),
        Claim("selection is better than random after a warm-up on half the kinds", names[2], names[3]),
        Claim("a shifted warm-up costs nothing", names[2], names[0], equal=True),
    )
    question = "Does selection survive a warm-up on other kinds of items than the pool has?"
    return Experiment("shift", question, arms, claims)


def rounds(recipe: Recipe) -> Experiment:
    arms, claims = [], []
    for who, label in (("student", "student"), ("ta", "assistant")):
        mine = [Arm(f"{n} round{'s' * (n > 1)}, {label}", (f"select.rounds={n}",), who) for n in (1, 2, 4)]
        arms += mine
        claims += [Claim(f"{arm.name}: better than in one round", arm.name, mine[0].name) for arm in mine[1:]]
    question = "Is it worth training the assistant between parts of the budget?"
    return Experiment("rounds", question, tuple(arms), tuple(claims))


def turns(recipe: Recipe) -> Experiment:
    mine = [Arm(f"{n} turn{'s' * (n > 1)}", (f"turns.count={n}",)) for n in (1, 2, 3)]
    claims = [Claim(f"{arm.name}: better than one turn", arm.name, mine[0].name) for arm in mine[1:]]
    question = "Does a student gain by learning on from what it writes on the pool itself?"
    return Experiment("turns", question, tuple(mine), tuple(claims))


def refining(recipe: Recipe) -> Experiment:
    """Students and assistants by how often the assistant has learnt from what it explains rightly itself."""
    items = recipe.refine.items or max(1, (recipe.data.pool or 2 * EXPLAINED) // 2)
    arms, claims = [], []
    for who, label in (("student", "student"), ("ta", "assistant")):
        mine = [Arm(f"as the teacher left it, {label}", ("refine.items=0",), who)]
        for n in (1, 2, 3):
            words = (f"refine.items={items}", f"refine.rounds={n}")
            mine.append(Arm(f"refined in {n} round{'s' * (n > 1)}, {label}", words, who))
        arms += mine
        claims += [Claim(f"{arm.name}: better than as the teacher left it", arm.name, mine[0].name) for arm in mine[1:]]
    question = "Is it worth training the assistant on what it explains rightly itself, before it annotates?"
    return Experiment("refining", question, tuple(arms), tuple(claims))


SWAPS = {
    "other words": (True, False), "the same words": (False, False),
    "other numbers": (False, True), "other words and numbers": (True, True),
}  # fmt: skip


def swaps(recipe: Recipe) -> Experiment:
    """Words and numbers swapped in every pass and left as they are: the student, the assistant, direct distillation."""
    arms, claims = [], []
    for who, suffix in (("student", ""), ("ta", ", assistant"), ("baseline", ", direct")):
        more = () if who != "baseline" or recipe.baseline.enabled else ("baseline.enabled=true",)
        for name, (words, numbers) in SWAPS.items():
            values = (f"swap.enabled={str(words).lower()}", f"swap.numbers={str(numbers).lower()}", *more)
            arms.append(Arm(f"{name}{suffix}", values, who))
        other, same, figures, both = (arm.name for arm in arms[-4:])
        claims.append(Claim(f"{other}: better than the same words in every pass", other, same))
        claims.append(Claim(f"{figures}: better than the same numbers in every pass", figures, same))
        claims.append(Claim(f"{both}: better than other words alone", both, other))
    question = "Does it help to tell the rationales with other words, and of other numbers, in every pass?"
    return Experiment("swaps", question, tuple(arms), tuple(claims))


def uneven(recipe: Recipe) -> Experiment:
    """Selection where some kinds of items are rare in the pool and as frequent as the others in the test."""
    if not recipe.generated:
        raise UserError(
            f"the pool of {recipe.name} is your own data, whose kinds are as frequent as they are",
            "leave `uneven` out: on your own pool `budget-vs-random` and `rounds` tell the same",
        )
    pool = f"data.skew={recipe.data.skew or SKEW:g}"
    ways = {"random": CHANCE, "selected": ("select.rounds=1",), "selected in two rounds": ("select.rounds=2",)}
    arms, claims = [], []
    for who, label in (("student", "student"), ("ta", "assistant")):
        mine = [Arm(f"{way}, {label}", (pool, *words), who) for way, words in ways.items()]
        arms += mine
        claims += [Claim(f"{arm.name}: better than random", arm.name, mine[0].name) for arm in mine[1:]]
    question = "Is a selected budget worth more than a random one where some kinds of items are rare?"
    return Experiment("uneven", question, tuple(arms), tuple(claims))


MIXTURES = {
    "static": (), "confidence": (), "confidence-label": (), "entropy": (), "power": (), "curriculum": (), "risk": (),
    "static, reverse KL": ("kd.divergence=reverse",), "static, Jensen-Shannon": ("kd.divergence=js",),
}  # fmt: skip


def mixed_labels(recipe: Recipe) -> Experiment:
    """Hard labels only are the assistant's texts that survive the filters; sequence-level takes them as they come."""
    hard, soft = Arm("hard labels only", ("kd.mix=hard",)), Arm("soft labels only", ("kd.mix=soft",))
    texts = Arm("sequence-level", ("kd.mix=hard", *UNFILTERED))
    gkd = Arm("GKD", ("kd.mix=soft", "kd.divergence=js", "kd.on_policy=0.5"))
    own = Arm("on-policy, reverse KL", ("kd.mix=soft", "kd.divergence=reverse", "kd.on_policy=1"))
    arms = [Arm(name, (f"kd.mix={name.partition(',')[0]}", *words)) for name, words in MIXTURES.items()]
    claims = [Claim(f"{arm.name}: better than {alone.name}", arm.name, alone.name)
              for arm in arms for alone in (hard, soft)]  # fmt: skip
    claims += [Claim(f"{arm.name}: at least equal to {dear.name}", arm.name, dear.name, equal=True)
               for arm in arms for dear in (gkd, own)]  # fmt: skip
    question = "Do hard and soft labels mixed per token make a better student than either alone, or than its own texts?"
    return Experiment("labels", question, (hard, soft, texts, gkd, own, *arms), tuple(claims))


def thinking(recipe: Recipe) -> Experiment:
    budgets = recipe.reasoning.budgets or BUDGETS
    learnt = (f"reasoning.budgets={list(budgets)}", "reasoning.compress=cut")
    rl, strict = (*learnt, "reasoning.rl=true"), "reasoning.grpo.tolerance=0"
    each = {
        "no budgets, cut off": ("reasoning.rl=false", "reasoning.budgets=[]", "reasoning.compress=cut"),
        "budgets": (*learnt, "reasoning.rl=false"),
        "budgets, by the teacher": (*learnt, "reasoning.rl=false", "reasoning.compress=teacher"),
        "budgets, by the teacher, then RL": (*rl, "reasoning.compress=teacher"),
        "budgets, by the teacher, then strict RL": (*rl, "reasoning.compress=teacher", strict),
        "budgets, then RL": rl,
        "budgets, then strict RL": (*rl, strict),
        "RL, additive reward": (*rl, "reasoning.grpo.reward=additive"),
        "RL without SFT": (*rl, "reasoning.grpo.sft=false"),
    }
    arms = tuple(Arm(name, words, think=budgets) for name, words in each.items())
    cut, sft, told, after, firm, both, hard, additive, alone = each
    claims = (
        Claim("budgets that were learnt are better than cutting off", sft, cut),
        Claim("a teacher that compresses is better than cuts", told, sft),
        Claim("RL is at least equal to the SFT before it", both, sft, equal=True),
        Claim("RL is at least equal to the SFT before it, by the teacher", after, told, equal=True),
        Claim("strict RL is at least equal to the SFT before it", hard, sft, equal=True),
        Claim("strict RL is at least equal to the SFT before it, by the teacher", firm, told, equal=True),
        Claim("a product of rewards is better than their sum", both, additive),
        Claim("RL needs the SFT before it", both, alone),
    )
    return Experiment("thinking", "Does a student keep to a budget of reasoning, and at what cost?", arms, claims)


EXPERIMENTS: dict[str, tuple[Callable[[Recipe], Experiment], str]] = {
    "budget-vs-random": (budget_vs_random, "selected against random items at 3 and 5 %"),
    "alignment": (alignment, "with and without instruction alignment"),
    "direct-vs-bridge": (direct_vs_bridge, "BRIDGE at 5 % against direct distillation at 5, 50 and 100 %"),
    "selection": (selection, "every strategy against random, at the recipe's budget"),
    "budgets": (budgets, "BRIDGE and direct at 1, 3, 5, 10, 20 and 100 %"),
    "filters": (filters, "the filters of the annotation, one by one and together"),
    "ta": (assistants, "the assistant, one as small as the student, and none"),
    "shift": (shift, "a warm-up on half the kinds of items"),
    "rounds": (rounds, "the budget in 1, 2 and 4 rounds"),
    "turns": (turns, "tutoring in 1, 2 and 3 turns: the student learns on from its own right rationales"),
    "refining": (refining, "the assistant as the teacher left it, and trained on what it explains rightly itself"),
    "swaps": (swaps, "words and numbers swapped in every pass or left as they are (swap.enabled, swap.numbers)"),
    "uneven": (uneven, "selected against random items, in one and two rounds, where some kinds are rare"),
    "labels": (mixed_labels, "hard labels, the assistant's distribution, mixtures per token (kd.mix), on-policy"),
    "thinking": (thinking, "budgets of reasoning: cut off, learnt, reinforced (RL), and RL done wrong"),
}
FIRST = ("budget-vs-random", "alignment", "direct-vs-bridge")
"""The paper's three first experiments, run where none is named."""


BY_ASSISTANT = ("budget-vs-random", "selection", "rounds", "refining", "shift", "uneven")
"""Those whose arms differ in what the assistant learns from."""


def experiments(names: Sequence[str], recipe: Recipe, ta_only: bool = False) -> list[Experiment]:
    """The named experiments for a recipe, or what they say of the assistants."""
    found = [EXPERIMENTS[name][0](recipe) for name in names]
    return [of_assistants(experiment) for experiment in found] if ta_only else found


def of_assistants(experiment: Experiment) -> Experiment:
    """The arms that measure the assistant; where there is none, every student's assistant in its place.

    Assistants are trained in a fraction of the time of a whole run, and through them the selection acts on a student.
    """
    if experiment.name not in BY_ASSISTANT:
        raise UserError(
            f"the arms of {experiment.name} do not differ in their assistants",
            f"leave out --ta-only, or name {', '.join(BY_ASSISTANT)}",
        )
    arms = [arm for arm in experiment.arms if arm.who == "ta"]
    arms = arms or [replace(arm, who="ta") for arm in experiment.arms]
    names = {arm.name for arm in arms}
    claims = tuple(claim for claim in experiment.claims if {claim.a, claim.b} <= names)
    return replace(experiment, arms=tuple(arms), claims=claims)
