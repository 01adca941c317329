"""Linear maps that can be applied but need not be formed, and their exponentials. No probability here."""
