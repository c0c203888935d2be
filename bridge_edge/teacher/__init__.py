"""Teachers: the metered sources of rationales and answers, and the one loop that asks them within a budget."""
