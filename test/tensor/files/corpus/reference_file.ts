/**
 * A file written by safetensors 0.8.0 in Python (`safetensors.torch.save(tensors, metadata={"format": "pt"})`), with a
 * tensor of every dtype that both know; see the writer's test for its contents.
 */
export const REFERENCE_FILE = Buffer.from(
  [
    "iAMAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCJ9LCJ1NjQiOnsiZHR5cGUiOiJVNjQiLCJzaGFwZSI6WzFdLCJkYXRhX29m",
    "ZnNldHMiOlswLDhdfSwiaWRzIjp7ImR0eXBlIjoiSTY0Iiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbOCwyNF19LCJkIjp7ImR0eXBl",
    "IjoiRjY0Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMjQsMzJdfSwiYS5iaWFzIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyXSwi",
    "ZGF0YV9vZmZzZXRzIjpbMzIsNDBdfSwiYi53ZWlnaHQiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzIsM10sImRhdGFfb2Zmc2V0cyI6WzQw",
    "LDY0XX0sImVtcHR5Ijp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlswLDRdLCJkYXRhX29mZnNldHMiOls2NCw2NF19LCJ1MzIiOnsiZHR5cGUi",
    "OiJVMzIiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOls2NCw2OF19LCJpMzIiOnsiZHR5cGUiOiJJMzIiLCJzaGFwZSI6WzFdLCJkYXRh",
    "X29mZnNldHMiOls2OCw3Ml19LCJicmFpbiI6eyJkdHlwZSI6IkJGMTYiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOls3Miw3NF19LCJo",
    "YWxmIjp7ImR0eXBlIjoiRjE2Iiwic2hhcGUiOlszXSwiZGF0YV9vZmZzZXRzIjpbNzQsODBdfSwidTE2Ijp7ImR0eXBlIjoiVTE2Iiwic2hh",
    "cGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbODAsODJdfSwiaTE2Ijp7ImR0eXBlIjoiSTE2Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpb",
    "ODIsODRdfSwiaTgiOnsiZHR5cGUiOiJJOCIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6Wzg0LDg1XX0sImJ5dGUiOnsiZHR5cGUiOiJV",
    "OCIsInNoYXBlIjpbXSwiZGF0YV9vZmZzZXRzIjpbODUsODZdfSwibWFzayI6eyJkdHlwZSI6IkJPT0wiLCJzaGFwZSI6WzNdLCJkYXRhX29m",
    "ZnNldHMiOls4Niw4OV19fSAgICAgCQAAAAAAAAD//////////wAAAAAAAQAAmpmZmZmZuT8AAMA/AAAAgAAAIMAAAMC/AAAAvwAAAD8AAMA/",
    "AAAgQP/////9////SUAAPADA/3v///7//wcBAAE=",
  ].join(""),
  "base64",
);
