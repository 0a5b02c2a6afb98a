-- What a room's owner wants the model to be told there.
ALTER TABLE rooms ADD COLUMN gpt_prompt TEXT;
