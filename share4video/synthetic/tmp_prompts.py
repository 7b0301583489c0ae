FIRST_PROMPT = "This is the first frame of a video, describe it in detail."
BRIEF_PROMPT = "Please faithfully summarize the following video in one sentence."
FAST_PROMPT = "Here are a few key frames of a video, discribe this video in detail."
def sliding_prompt(i, t, j, u, prev):
    return f"Here are the Video frame {i} at {t:.2f} Second(s) and Video frame {j} at {u:.2f} Second(s) of a video, describe what happend between them. What happend before is: {prev}"
def summary_prompt(timed):
    return "Summarize the following per frame descriptions:\n" + "".join(f"Video frame {k+1} at {t:.2f} Second(s) description: {c}\n" for k,(t,c) in enumerate(timed))
def recaption_prompt(text): return f"Translate this brief generation prompt into a detailed caption: {text}"
MVBENCH_SYSTEM = "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of objects, and the action and pose of persons. Based on your observations, select the best option that accurately addresses the question.\n"
GRID_PRE_QUERY = "The provided image arranges keyframes from a video in a grid view, keyframes are separated with white bands. Answer concisely with overall content and context of the video, highlighting any significant events, characters, or objects that appear throughout the frames."
CHAT_SYSTEM = "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language."
PREFILL = "Best option:("
def question_block(q, cands):
    return "Question: " + q + "\nOptions:\n" + "\n".join(f"({'ABCDEFG'[i]}) {c}" for i, c in enumerate(cands)) + "\nOnly give the best option."
