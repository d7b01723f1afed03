"""The demonstration behind `glidemq demo`: a real small model, two workers, and one of them killed in mid-answer."""
