"""Everything that turns tested snippets and bilingual words into the site."""
