"""A toy question: how bright are the scans?"""

from bids_alphagan.evaluation.question import GOOD, Answer, Headline, Question, row_of


class Brightness(Question):
    depends = ("compared", "version")
    content = ("compared",)
    options = ("pairs_per_scan",)

    def columns(self):
        return {
            "brightness": {
                "model": {"Description": "The model."},
                "mean": {"Description": "Mean intensity."},
                "pairs_per_scan": {"Description": "The option."},
            }
        }

    def answer(self, scans, settings):
        rows = [
            {"model": model, "mean": float(of.mean()), **settings} for model, of in scans.synthetic.items()
        ]
        return Answer({"brightness": rows}, ["A toy."])

    def methods(self, answer, study):
        return "Brightness was averaged [@bids]."

    def headlines(self, model, answers):
        row = row_of(answers["brightness"].tables["brightness"], model)
        return [Headline("Is it bright?", GOOD, f"Its mean is {row['mean']:.2f}.", "brightness")]
