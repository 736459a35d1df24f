"""What a mail is made of: its addresses, its headers, its parts, and the text that goes with its HTML."""
